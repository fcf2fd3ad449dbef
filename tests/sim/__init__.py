# SPDX-License-Identifier: GPL-2.0-or-later
"""What is particular to the simulator."""
