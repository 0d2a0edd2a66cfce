"""The pages that gopush shows in a browser: plain HTML beside the few lines that serve it."""
