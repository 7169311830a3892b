"""Image files under a cipher: folders of them, and the manifest that decryption needs."""
