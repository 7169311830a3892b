"""Encrypting and decrypting image files, and the manifest that decryption needs."""
