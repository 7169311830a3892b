"""What runs at the provider: collect shards, train on them, answer queries. It holds no key."""
