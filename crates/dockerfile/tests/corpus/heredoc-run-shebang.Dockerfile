FROM python:3
RUN <<EOF
#!/usr/bin/env python3
print("hello")
EOF
SHELL ["/bin/bash", "-c"]
RUN <<-SCRIPT
	#!/bin/bash
	echo tabs
SCRIPT
