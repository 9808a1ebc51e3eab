"""Bodies and expression texts -> checked requests and trees, with DynamoDB's refusals."""
