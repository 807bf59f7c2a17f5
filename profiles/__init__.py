"""The profiles that ship: one JSON file each, read by `core.profile_file.load_profile`."""
