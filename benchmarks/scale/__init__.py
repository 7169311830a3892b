"""Upload: participants' shards through Flower into the provider's pool, beside raw Ray."""
