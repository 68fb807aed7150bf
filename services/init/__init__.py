"""The one-shot role `init`: data set → shards → identities, then gone. Imports no TensorFlow."""
