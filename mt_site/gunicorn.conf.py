wsgi_app = "mt_site.wsgi:application"
workers = 2
threads = 4
accesslog = "-"
graceful_timeout = 5
# One fixed path per user would be shared by two checkouts.
control_socket_disable = True
