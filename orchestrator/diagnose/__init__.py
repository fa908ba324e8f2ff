"""From what a run left behind to the reason why it failed, waits or is slow.

What is known of failures is data: one rule each in `known/*.toml`, with an example beside it.
"""
