CAUSES: tuple[str, ...]

def known_link_type(linktype: int) -> bool:
    """Can the core read this LINKTYPE_ value?"""
