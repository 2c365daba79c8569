"""The API beyond whole records: pages of lists, the event stream, the WebSocket, its description.

query.py           parameters of a request, and pages of a list with a cursor
resources.py       what `/api/v1/...` answers to a query: one table
control.py         orders of the run's owner
dashboard.py       the paths and the messages of the original dashboard
event_stream.py    `/api/v1/events` as server-sent events
web_socket.py      `/ws`
broadcaster.py     from the feed to every connected client, with a bound on what waits
bodies.py          the bodies that many paths share
openapi.py         the description of all of it, at `/api/openapi.json`
docs_page.py       the same as a page, at `/api/docs`
"""
