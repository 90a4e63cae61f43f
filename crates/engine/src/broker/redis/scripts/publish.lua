-- Gives a message the next offset of its topic, keeps it, and sends it to all hosts that want the topic.
-- ARGV: 7 how many messages are kept, 8 what precedes the message on the channel, 9 what is kept beside it, 10 the
--       message

local LAST = 9007199254740991

local function place()
    local epoch, offset = position()
    if offset >= LAST then
        epoch, offset = begin(current_run())
    end
    offset = offset + 1
    redis.call('HSET', KEYS[1], 'offset', text(offset))
    keep_position()
    if ARGV[7] ~= '0' then
        local now = milliseconds()
        local id = text(offset) .. '-' .. text(now)
        redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[7], id, 'h', ARGV[9], 'p', ARGV[10])
        redis.call('PEXPIRE', KEYS[2], ARGV[2] + 1000)
        drop_aged(now)
    end
    return epoch, offset
end

local is_placed, epoch, offset = pcall(place)
if is_placed then
    redis.call('PUBLISH', ARGV[5], ARGV[6] .. '\2' .. epoch .. bytes(offset) .. ARGV[8] .. ARGV[10])
    return 1
end
-- Nothing can be written: there is no memory left, for example. Subscribers get the message without an offset. Whoever
-- resumes must not get the later ones as if there were no gap.
pcall(function()
    -- The first write is one that is allowed when there is no memory left.
    keep_position()
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
end)
redis.call('PUBLISH', ARGV[5], ARGV[6] .. '\3' .. ARGV[8] .. ARGV[10])
return redis.error_reply('DELIVERED ' .. (type(epoch) == 'table' and epoch.err or epoch))
