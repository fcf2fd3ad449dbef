# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract of kevent, one topic a file, against the device that KEVENT_DEVICE names."""
