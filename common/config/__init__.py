"""What a run is asked to do: YAML files merged, checked and typed."""
