"""How bodies that Schemathesis knows nothing of are written."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    """Lines are sent as they are."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "ignore")
