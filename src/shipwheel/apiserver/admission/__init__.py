"""What is changed in, or refused of, an object before it is stored."""
