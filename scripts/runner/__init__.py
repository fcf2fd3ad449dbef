# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetches kernels, builds the module against them, and boots them in guests.

Only the standard library is used here, so that every script next to this
folder runs with any Python from 3.11 on, before ``.venv`` exists.
"""
