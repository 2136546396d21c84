"""Report of a run or a sweep as one HTML page, made from its files; needs the extra `report` for its charts."""
