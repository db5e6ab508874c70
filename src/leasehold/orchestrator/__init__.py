"""The five steps and what people ask of them. Takes transactions, never commits alone."""
