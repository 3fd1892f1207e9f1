"""The messages of device plugins (`v1beta1`), of DRA plugins (`v1`, `v1beta1`, health `v1alpha1`) and of the pod
resources that the kubelet tells (`v1`), as tables."""

from __future__ import annotations

from functools import cache

from shipwheel.api.protobuf import Message, parse_tables


@cache
def device_messages() -> dict[str, Message]:
    return parse_tables(_DEVICES)


@cache
def claim_messages() -> dict[str, Message]:
    return parse_tables(_CLAIMS)


@cache
def pod_resources_messages() -> dict[str, Message]:
    return parse_tables(_POD_RESOURCES)


_DEVICES = """
Empty
DevicePluginOptions pre_start_required=1:bool get_preferred_allocation_available=2:bool
RegisterRequest version=1:string endpoint=2:string resource_name=3:string options=4:DevicePluginOptions
ListAndWatchResponse devices=1:[Device]
Device ID=1:string health=2:string topology=3:TopologyInfo
TopologyInfo nodes=1:[NUMANode]
NUMANode ID=1:int64
PreStartContainerRequest devices_ids=1:[string]
PreStartContainerResponse
PreferredAllocationRequest container_requests=1:[ContainerPreferredAllocationRequest]
ContainerPreferredAllocationRequest available_deviceIDs=1:[string] must_include_deviceIDs=2:[string]
    allocation_size=3:int32
PreferredAllocationResponse container_responses=1:[ContainerPreferredAllocationResponse]
ContainerPreferredAllocationResponse deviceIDs=1:[string]
AllocateRequest container_requests=1:[ContainerAllocateRequest]
ContainerAllocateRequest devices_ids=1:[string]
AllocateResponse container_responses=1:[ContainerAllocateResponse]
ContainerAllocateResponse envs=1:{string:string} mounts=2:[Mount] devices=3:[DeviceSpec]
    annotations=4:{string:string} cdi_devices=5:[CDIDevice]
CDIDevice name=1:string
Mount container_path=1:string host_path=2:string read_only=3:bool
DeviceSpec container_path=1:string host_path=2:string permissions=3:string
"""

_CLAIMS = """
enum HealthStatus UNKNOWN=0 HEALTHY=1 UNHEALTHY=2
NodePrepareResourcesRequest claims=1:[Claim]
NodePrepareResourcesResponse claims=1:{string:NodePrepareResourceResponse}
NodePrepareResourceResponse devices=1:[Device] error=2:string
Device request_names=1:[string] pool_name=2:string device_name=3:string cdi_device_ids=4:[string] share_id=5:string
NodeUnprepareResourcesRequest claims=1:[Claim]
NodeUnprepareResourcesResponse claims=1:{string:NodeUnprepareResourceResponse}
NodeUnprepareResourceResponse error=1:string
Claim namespace=1:string uid=2:string name=3:string
NodeWatchResourcesRequest
NodeWatchResourcesResponse devices=1:[DeviceHealth]
DeviceHealth device=1:DeviceIdentifier health=2:HealthStatus last_updated_time=3:int64
    health_check_timeout_seconds=4:int64 message=5:string
DeviceIdentifier pool_name=1:string device_name=2:string
"""

_POD_RESOURCES = """
AllocatableResourcesRequest
AllocatableResourcesResponse devices=1:[ContainerDevices] cpu_ids=2:[int64] memory=3:[ContainerMemory]
ListPodResourcesRequest
ListPodResourcesResponse pod_resources=1:[PodResources]
GetPodResourcesRequest pod_name=1:string pod_namespace=2:string
GetPodResourcesResponse pod_resources=1:PodResources
PodResources name=1:string namespace=2:string containers=3:[ContainerResources]
ContainerResources name=1:string devices=2:[ContainerDevices] cpu_ids=3:[int64] memory=4:[ContainerMemory]
    dynamic_resources=5:[DynamicResource]
ContainerMemory memory_type=1:string size=2:uint64 topology=3:TopologyInfo
ContainerDevices resource_name=1:string device_ids=2:[string] topology=3:TopologyInfo
TopologyInfo nodes=1:[NUMANode]
NUMANode ID=1:int64
DynamicResource claim_name=2:string claim_namespace=3:string claim_resources=4:[ClaimResource]
ClaimResource cdi_devices=1:[CDIDevice] driver_name=2:string pool_name=3:string device_name=4:string
    share_id=5:string
CDIDevice name=1:string
"""
