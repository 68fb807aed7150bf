"""How messages travel: TLS contexts, the event-driven hub, and websocket endpoints over declearn's wire format."""
