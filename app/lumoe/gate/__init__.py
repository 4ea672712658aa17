"""Who answers? The gate finds out from pictures and conversation whether an expert's subject is concerned."""
