"""What every experiment uses: records and statistics, reports, processes."""
