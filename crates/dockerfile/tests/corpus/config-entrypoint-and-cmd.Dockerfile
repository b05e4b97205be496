FROM base-with-cmd AS resets
ENTRYPOINT ["e"]
FROM base-with-cmd AS keeps
CMD ["own"]
ENTRYPOINT ["e"]
FROM keeps AS inherits
ENTRYPOINT ["f"]
FROM base-with-cmd AS clears
CMD []
FROM base-with-cmd
ENTRYPOINT []
