"""The status page: HTML rendered here, brought up to date by server-sent events, nothing loaded from elsewhere."""
