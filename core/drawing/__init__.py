"""Pictures that the pack draws itself: plates and plots."""
