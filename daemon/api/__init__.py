"""The HTTP API for programs that speak OpenAI's protocol.

    api_requests.py   the bodies of requests, checked
    api_replies.py    the bodies of answers and errors
    answers.py        generations for the requests, on trio's side
    answer_queue.py   carries one answer from trio to the web thread
    handlers.py       paths, access, events on a stream
    api_connection.py limits on connections
    api_server.py     the web thread
    access_key.py     the bearer token of a home

aiohttp runs in one thread of its own, as in `daemon/observer`.
"""
