"""How Keras runs the steps: ``fit``, several replicas and workers, callbacks."""
