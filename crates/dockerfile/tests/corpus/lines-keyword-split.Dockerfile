FR\
OM alpine
r\
u\
n echo split
EN\
V a=b
