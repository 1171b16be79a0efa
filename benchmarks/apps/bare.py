"""(a) A bare ASGI application that answers a constant."""

BODY = b'{"prediction":1,"probabilities":{"0":0.49,"1":0.51}}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"52")],
}


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await receive()
    await send(START)
    await send({"type": "http.response.body", "body": BODY})
