"""Pages of the chat; each file is one page and ends by running itself.

Not called ``pages``: a folder of that name beside the main script makes Streamlit show its files by their names
to whoever opens the address of one of them first, without the frame.
"""
