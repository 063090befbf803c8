
-- Every INSERT and UPDATE of :table is fenced by the column :column. SQLite has no variables of
-- a transaction, so a DELETE is not: use leasehold_fence in its transaction. (An INSERT OR REPLACE
-- is fenced as the INSERT that it ends with.)
CREATE TRIGGER IF NOT EXISTS :insert_trigger AFTER INSERT ON :table BEGIN
    INSERT INTO leasehold_fence (resource, token) VALUES (:new_resource, NEW.:column);
END;
CREATE TRIGGER IF NOT EXISTS :update_trigger AFTER UPDATE ON :table BEGIN
    INSERT INTO leasehold_fence (resource, token)
        SELECT :old_resource, NEW.:column WHERE :old_resource IS NOT :new_resource;
    INSERT INTO leasehold_fence (resource, token) VALUES (:new_resource, NEW.:column);
END;
