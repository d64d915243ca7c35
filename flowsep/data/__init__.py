"""Where training and evaluation sounds come from: manifests, mixing on the fly, and the project's own synthesis."""
