"""The host agent: starts worker processes, keeps the host's session, sees their death."""
