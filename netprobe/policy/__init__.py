"""From a configuration document to running handlers: taps, policies, inputs."""
