
-- Every INSERT, UPDATE and DELETE of :table is fenced (a TRUNCATE is not). PostgreSQL 14 and later.
CREATE OR REPLACE TRIGGER leasehold_fence BEFORE INSERT OR UPDATE OR DELETE ON :table
    FOR EACH ROW EXECUTE FUNCTION :schema.leasehold_fence_write(:resource, :key, :column);
