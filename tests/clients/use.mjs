// What the JavaScript client does in the test: write, watch, read, delete. Prints what it saw.
import * as k8s from '@kubernetes/client-node';

const config = new k8s.KubeConfig();
config.loadFromFile(process.env.KUBECONFIG);
const core = config.makeApiClient(k8s.CoreV1Api);
const namespace = 'default';
const name = 'javascript';

await core.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { a: 'b' } } });
const seen = await new Promise((resolve) => {
  new k8s.Watch(config).watch(`/api/v1/namespaces/${namespace}/configmaps`, {}, (type, object) => {
    if (object.metadata.name === name) resolve(type);
  }, () => {});
});
const { data } = await core.readNamespacedConfigMap({ name, namespace });
await core.deleteNamespacedConfigMap({ name, namespace });
console.log(JSON.stringify({ seen, data }));
process.exit(0);
