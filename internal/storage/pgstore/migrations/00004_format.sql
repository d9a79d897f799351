-- +goose Up

-- Nothing changes here. Rows do: event IDs lead to their events, and the search index has
-- blocks and segments, neither of which earlier versions would find. They refuse a
-- database that has this step.
SELECT 1;
