"""The demo world: invented entities, their pictures, and a small LLaVA that really knows them."""
