"""The command line's door into the REST API, by `leasehold.client`."""
