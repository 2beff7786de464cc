"""Reading the config store: how a process becomes equal to it, and stays so.

``boot`` reads it once, the ``reflector`` follows its log, the ``pipeline`` turns what was read into what is
served; ``records`` and ``unknown_ids`` are for tenants that a visitor asks for first, ``last_good`` for a store that
is away, ``fleet`` for what all processes say of themselves. Other rooms import from these modules.
"""
