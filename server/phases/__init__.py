"""The phases in which participants are asked for something: upload, queries, score."""
