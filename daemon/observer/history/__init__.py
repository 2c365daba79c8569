"""What an observer remembers: its events and the rounds that it verified.

feed_event.py     one event, as clients and the store see it
event_feed.py     the newest events in memory, which the trio side adds and the web thread reads
history_store.py  rounds and events in SQLite, which survive `kill -9`
recorder.py       from the journal to the feed and the store
"""
