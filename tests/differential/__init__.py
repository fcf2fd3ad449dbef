# SPDX-License-Identifier: GPL-2.0-or-later
"""Random programs on the module, on the simulator and on a model of the contract."""
