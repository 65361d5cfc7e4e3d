"""Nobody runs this: the devices of the test are nodes of its own."""

from flwr.clientapp import ClientApp

app = ClientApp()
