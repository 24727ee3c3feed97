"""What token tests share: known keys, judges that are not us, and child processes."""
