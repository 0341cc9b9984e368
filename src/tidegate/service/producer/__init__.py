"""`/store-events-producer-fn`: makes store events, for demonstrations."""
