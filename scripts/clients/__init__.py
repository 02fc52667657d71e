"""Real clients, driven through a real proxy to the strict provider on the loopback.

clients.toml   what is installed, in which version
drivers.py     one entry per client: how it is run, which tool it is told to call
programs/      programs for clients that are libraries
install.py     into the checkout's .cache
stage.py       provider, proxy and client for one run, and what was seen of it
sealed.py      no network but the loopback
witness.py     loaded into the proxy: who came, and who trusted it
main.py        all of it, and the table
"""
