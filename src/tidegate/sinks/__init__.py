"""Outside places that receive rows, each at its own pace."""
